"""The tables."""

import os

from sqlalchemy import CheckConstraint, ForeignKey, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, scoped_session, sessionmaker

URL = os.environ["DATABASE_URL"]
engine = create_engine(
    URL.replace("postgresql:", "postgresql+psycopg2:", 1), pool_size=4, max_overflow=4, pool_pre_ping=True
)
Session = scoped_session(sessionmaker(engine))


class Table(DeclarativeBase):
    pass


class Product(Table):
    __tablename__ = "product"
    __table_args__ = (CheckConstraint("stock >= 0", name="enough"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    sku: Mapped[str] = mapped_column(unique=True)
    price: Mapped[int]
    stock: Mapped[int]


class Order(Table):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str]
    state: Mapped[str] = mapped_column(default="open")
    lines: Mapped[list["Line"]] = relationship(back_populates="order", order_by="Line.id")


class Line(Table):
    __tablename__ = "line"

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))
    product_id: Mapped[int] = mapped_column(ForeignKey("product.id"))
    quantity: Mapped[int]
    order: Mapped[Order] = relationship(back_populates="lines")
    product: Mapped[Product] = relationship()


class Receipt(Table):
    __tablename__ = "receipt"

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), unique=True)
    total: Mapped[int]
