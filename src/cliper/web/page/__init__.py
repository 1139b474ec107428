"""``cliper demo``: a page in the browser. :func:`cliper.web.page.run.serving` runs it."""
