"""Infer which books, kinds of books, orders and gaps raise an ability."""
