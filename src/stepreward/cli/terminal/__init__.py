"""What commands show: text that cannot steer the terminal, tables, progress, and rows that are left out."""
