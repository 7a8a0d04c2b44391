"""Measures adjoin side by side with the servers that one would take instead.

`python3 -m peers run` does all of it; README.md beside this file says what is measured and how to
read it. The package needs nothing but Python: what a peer needs is installed into an environment of
its own.
"""
