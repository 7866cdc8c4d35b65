"""RSA keys, and the regions of EC2 that use them. Home of cryptography, with `codec.cbc`."""
