"""Reports: an SQL file and its rows in, a page, its Markdown and a CSV file out. Pure: nothing is opened here."""
