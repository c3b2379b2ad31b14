"""Analysis: tables in, frozen results out; nothing is drawn here."""
