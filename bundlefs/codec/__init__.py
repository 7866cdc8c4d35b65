"""Pure transformations of bytes: tar, deflate and gzip, CBC.

The codecs do not know each other, and none of them does I/O: bytes come and go as arguments, or
through a function or an object that the caller hands over.
"""
