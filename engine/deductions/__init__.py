"""What follows from facts before any rule judges them, one derived fact a file."""
