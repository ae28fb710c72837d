fn main() {
    println!("{}", clap::Command::new("x").get_name());
}
