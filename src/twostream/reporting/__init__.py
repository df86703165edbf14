"""Arrays and run folders in, pictures and one page out."""
