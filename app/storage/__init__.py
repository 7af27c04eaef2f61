"""What is stored beside the trees: users and events, documents, the audit log, use of keys."""
