"""The filters, one module each, and the page that orders them."""
