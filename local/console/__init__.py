"""The console: a web page (`page/`), and the data that it shows."""
