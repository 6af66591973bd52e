"""Exchanging trained networks with other libraries."""
