from stepreward.cli.doctor.command import doctor as doctor
