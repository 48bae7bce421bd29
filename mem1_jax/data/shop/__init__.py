"""The embedded web shop: invented products, described from templates, in WebShop's schema."""
