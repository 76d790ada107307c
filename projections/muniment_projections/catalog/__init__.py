"""Catalog aggregates that nobody searches: principals and published schemas."""
