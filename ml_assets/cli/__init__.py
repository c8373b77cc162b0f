"""`ml-assets`: one module per group of commands; `main.py` puts them together."""
