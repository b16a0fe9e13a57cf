"""What the code around the cursor says: language, brackets, syntax, where a suggestion ends."""
