"""One kernel question a file; a file placed here is a collector."""
