"""What several commands share: console output, options, and which model they take."""
