"""The bundled catalogue of books and films, its example readers, and a tour of both."""
