"""Getting a bundle into a bucket, by tools that do all that needs a network.

Nothing here speaks to a network: aws-cli and rclone are started, and bring the credentials. What is
to go where is decided here, and in which order; `cli/uploading.py` is the command line.
"""
