"""What is paid later or together: payment files and scheduled payments; and the mails that tell of what happened meanwhile."""
