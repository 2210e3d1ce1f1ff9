"""What `stepreward doctor` does once, small, with a known outcome. Each returns what it says where all is well."""
