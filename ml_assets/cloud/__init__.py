"""What a pod's role is turned into where a server takes neither it nor a key: tokens that serve as passwords.

S3 and GCS need nothing of it: their clients find the role themselves.
"""
