"""The bundled catalogue of books and films, example users, and a demonstration of both."""
