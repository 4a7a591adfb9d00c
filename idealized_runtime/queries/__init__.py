"""What is asked: tables, files and mixes of queries; and every query priced."""
