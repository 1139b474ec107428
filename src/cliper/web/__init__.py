"""Pictures and words over the web: a page for people, a service for programs. Both need the extra ``web``."""
