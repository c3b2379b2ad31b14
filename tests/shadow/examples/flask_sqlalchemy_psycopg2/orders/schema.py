"""Makes the tables: python -m orders.schema."""

from orders.models import Table, engine

if __name__ == "__main__":
    Table.metadata.create_all(engine)
