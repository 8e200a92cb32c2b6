"""Servers that ttc starts itself: how many, where, and what becomes of them."""
