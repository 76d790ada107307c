"""What can be searched: for each entity its names, columns, comparators, orders and messages."""
