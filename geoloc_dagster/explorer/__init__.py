"""The explorer: a web page and an API on which a region is looked at, asked about photos, and played against.

It reads what assets have written and the served release, and writes nothing.
"""
