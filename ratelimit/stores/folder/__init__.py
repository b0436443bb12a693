"""One quota for the processes of one machine, in a folder of small files.

Owns the files, their locks, who shares them, and the store on top.
"""
