"""What reports ask the tables, as SQL; what is made of it is in `muniment_services.reports`."""
