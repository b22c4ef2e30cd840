"""What a table of networks is held against: rows that no video network was trained for."""
