"""What is linearly decodable per layer."""
