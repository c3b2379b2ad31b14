CREATE TABLE product (
    id serial PRIMARY KEY,
    name text NOT NULL UNIQUE,
    price_cents int NOT NULL CHECK (price_cents >= 0),
    stock int NOT NULL CHECK (stock >= 0)
);
CREATE TABLE customer_order (
    id bigserial PRIMARY KEY,
    customer text NOT NULL,
    placed_at timestamptz NOT NULL DEFAULT now(),
    status text NOT NULL DEFAULT 'placed'
);
CREATE TABLE order_item (
    order_id bigint NOT NULL REFERENCES customer_order ON DELETE CASCADE,
    product_id int NOT NULL REFERENCES product,
    quantity int NOT NULL CHECK (quantity > 0),
    price_cents int NOT NULL,
    PRIMARY KEY (order_id, product_id)
);
CREATE TABLE audit_line (id bigserial PRIMARY KEY, what text NOT NULL, by_login text DEFAULT session_user);
CREATE FUNCTION announce_order() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('orders', NEW.id || ' ' || NEW.customer);
    RETURN NEW;
END
$$;
CREATE TRIGGER announce AFTER INSERT ON customer_order FOR EACH ROW EXECUTE FUNCTION announce_order();
INSERT INTO product (name, price_cents, stock) VALUES ('lamp', 4900, 100), ('chair', 12000, 50), ('rug', 8000, 3);
