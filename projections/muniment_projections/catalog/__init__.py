"""Catalog aggregates that nobody searches: principals, credentials and published schemas."""
