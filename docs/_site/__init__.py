"""How the site is made from the pages of this folder; `python docs/build.py` makes it."""
