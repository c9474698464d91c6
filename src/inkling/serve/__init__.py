"""A model as a service, in OpenAI's wire format."""
