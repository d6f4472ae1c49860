"""Data roots in S3-compatible object storage: Lance tables lie there, everything else has a working copy on this machine.

Nothing is imported on behalf of a local data root but `binding`, which looks for the mark of a working copy.
"""
