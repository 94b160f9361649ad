"""Pages: one thin file per page; navigation.py is their table."""
