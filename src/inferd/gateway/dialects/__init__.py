"""Wire dialects: each maps its JSON onto GenerateRequest fields and token events back."""
