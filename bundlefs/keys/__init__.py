"""RSA keys, and the regions of EC2 that use them.

The library `cryptography` is used here and in `codec.cbc`, and nowhere else.
"""
