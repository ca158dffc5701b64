"""What has to be in order for the bot to work, looked at before somebody needs it."""
