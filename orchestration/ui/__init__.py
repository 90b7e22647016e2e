"""`flame ui`: the web servers, who may ask them, and their end."""
