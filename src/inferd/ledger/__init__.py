"""What must outlive a server: SQLite in the home folder, with one writer."""
