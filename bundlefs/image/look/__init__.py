"""A look into an image: how it is partitioned, and for which architecture its code is.

Few reads, each bounded, and nothing that is read is trusted: an image may come from
anybody. What cannot be told for sure is not told; nothing here guesses.
"""
