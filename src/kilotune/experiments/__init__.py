"""Runs on disk, and what is made of several of them."""
