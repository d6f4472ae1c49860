"""Taking pictures out of the tables, in the formats that other tools read, with everything their licences ask for."""
