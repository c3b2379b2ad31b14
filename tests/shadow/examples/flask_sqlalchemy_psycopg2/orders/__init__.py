"""Orders and their payments: Flask, SQLAlchemy's ORM, psycopg2."""
